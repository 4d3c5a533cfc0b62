"""What stands between this project and files of strangers; it imports nothing of the project."""
