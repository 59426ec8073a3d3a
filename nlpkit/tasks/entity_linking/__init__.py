from nlpkit.tasks.entity_linking.task import Task

__all__ = ["Task"]
