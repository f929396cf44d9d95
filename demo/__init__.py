"""`make demo`: the main job on a real guest, told step by step. Nothing here is imported by the service."""
