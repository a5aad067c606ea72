"""Adapters of Keras 3 and tf_keras: the only package that imports a framework."""
