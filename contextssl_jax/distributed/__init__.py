"""Devices and processes: placing arrays, collectives, joining and watching other processes."""
