"""The guest agent: process 1 of the measured VM. It obeys the manifest and nothing else; `start.py` is its story."""
