from nlpkit.tasks.cln.task import Task

__all__ = ["Task"]
