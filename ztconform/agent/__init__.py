# SPDX-License-Identifier: Apache-2.0
"""The agent that runs in every pod: a server that remembers each nonce it saw, and a prober that says what each probe met.

What an observation means is for the judge; where pods are is for the lab and for kube. The package is packed alone into
agent.pyz and runs on whatever Python an image has: it keeps to Python 3.8 and its standard library, and its imports are relative.
"""
