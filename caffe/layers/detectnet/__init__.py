"""NVCaffe's Python layers for DetectNet, by the names that its nets give."""
