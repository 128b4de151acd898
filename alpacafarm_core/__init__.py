"""The science of AlpacaFarm, without Prefect.

Read in this order: values, artifacts, weights, settings, objective, farm, method, methods/*; then
what they stand on: prompts, panel, annotate, tally, search, train/{logps,rl}; then the edges:
store, sources, ledger, llm, generate, reward, train/{job,offline,online}; and `world/`.
"""
