from nlpkit.tasks.xiangqi.task import Task

__all__ = ["Task"]
