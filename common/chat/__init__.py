"""Turns the messages of a conversation into the text that a language model continues.

A model may bring a template in the language Jinja (`chat_template.jinja`). Templates are code from files that may come
from anywhere, so they are rendered by a child process in a sandbox, with limits of time, memory and output.
"""
