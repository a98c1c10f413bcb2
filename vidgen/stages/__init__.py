"""Stages: records in, records out. They know neither flags nor files nor terminals."""
