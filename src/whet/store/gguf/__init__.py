"""GGUF files of llama.cpp as a source: read with distrust, seen as a folder. Torch-free."""
