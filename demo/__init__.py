"""`make demo`: the main job on a real guest, and on a simulated Windows, step by step. Nothing here is imported by the service."""
