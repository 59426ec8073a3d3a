from nlpkit.tasks.gplinker.task import Task

__all__ = ["Task"]
