from nlpkit.tasks.kgclue.task import Task

__all__ = ["Task"]
