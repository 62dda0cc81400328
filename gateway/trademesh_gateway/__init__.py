"""The gateway: the data plane of one run. Started by runtime_service and by nobody else.

market     bars and news in; the point-in-time view
agents     the desk: what each role reads and returns
risk       limits on every order
pipeline   the cycle of a session, and who drives it
"""
