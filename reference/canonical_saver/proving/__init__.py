"""Whether a folder that anybody wrote is the model in memory, and digests of models.

Nothing here is imported to save a model: these are leaves.
"""
