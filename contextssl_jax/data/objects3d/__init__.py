"""Built-in 3D objects, rendered by sphere tracing: shapes, distances, shading, the data set."""
