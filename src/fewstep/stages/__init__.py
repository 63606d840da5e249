"""Commands of fewstep that build on each other, each a process and a folder of its own."""
