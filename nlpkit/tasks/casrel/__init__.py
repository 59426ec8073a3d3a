from nlpkit.tasks.casrel.task import Task

__all__ = ["Task"]
