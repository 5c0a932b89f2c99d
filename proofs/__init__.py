"""The claims of this project, each as a program that measures it: `make prove CLAIM=name`."""
