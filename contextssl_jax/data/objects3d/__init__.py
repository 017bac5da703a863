"""Built-in 3D objects, drawn by sphere tracing: shapes, distances, pictures, the data set."""
