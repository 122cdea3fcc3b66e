"""Kafka between sites and intake, through kafka-python. Only this package imports it."""

import logging

# The library logs each failed try to connect, several a second while a broker is away. What goes wrong comes to us as
# exceptions, and is said once, by those who know what it means for the batches (metering/shipper.py, intake).
logging.getLogger("kafka").setLevel(logging.CRITICAL)
