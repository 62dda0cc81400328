"""agent_service: the control plane for workspaces, agents, skills and approvals (port 8000).

A workspace is design time: a run takes a copy of it when it starts, and never reads it again.
"""
