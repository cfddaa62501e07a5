"""Phase II: an LSTM trained data-parallel with Horovod over MPI ranks, exported to ONNX, published whole."""
