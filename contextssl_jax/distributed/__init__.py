"""Devices and processes: array placement, collectives, process startup and monitoring."""
