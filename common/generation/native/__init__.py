"""The forward pass for generation on CPUs, in C++: `build` compiles it, `library` loads it, `model` calls it."""
