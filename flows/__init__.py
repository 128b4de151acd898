"""What a person asks for: prepare, optimise, evaluate, leaderboard, and the command `alpacafarm`.

Each flow is a plain function with a thin Prefect flow of the same name over it, so that one flow
calls another's function without a run of its own, and the command line needs no server.
"""
