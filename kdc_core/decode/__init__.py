"""Decode: Fields to people, as one fixed-shape batched program of torch operations.

Every tensor has a size fixed by the configuration (N peaks a type, M seeds, P people), so the
time does not depend on the number of people, and the program exports behind the network.
"""
