from nlpkit.tasks.similarity.task import Task

__all__ = ["Task"]
