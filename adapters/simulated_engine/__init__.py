"""A twin of vLLM's HTTP server that generates nothing: for the demo, for tests, and where no accelerator is.

It answers as vLLM 0.32 does on every endpoint that Tallygrid meters (bodies, server-sent events, headers, errors,
`/metrics`), paces streams as if tokens were sampled one by one, goes on for a few tokens after a client left, keeps
vLLM's counters truthfully, and writes the lines of the engine's witness. A contract test holds it to recordings of
the real server. Its words mean nothing: only the counts are of interest.

What it leaves out: sampling and its parameters, stop strings, tools and log probabilities.
"""
