"""Kafka between sites and intake, through kafka-python. Only this package imports it."""
