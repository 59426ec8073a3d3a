from nlpkit.tasks.ape210k.task import Task

__all__ = ["Task"]
