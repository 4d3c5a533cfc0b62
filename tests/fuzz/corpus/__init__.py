"""Small files: sound ones to spoil (`sound`), and hostile ones that are known (`hostile`)."""
