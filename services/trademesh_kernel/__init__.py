"""What every server of the mesh shares, and nothing about any one of them.

settings     what the environment says, checked at start
errors       our exceptions; status: the one place that turns them into google.rpc.Status
interceptor  one composed stage list for every call
server       bootstrap, health, reflection, drain
client       typed calls with a deadline, a request id and a retry policy
"""
