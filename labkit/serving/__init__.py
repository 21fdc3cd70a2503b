"""Many users of one model at once: an engine that batches them, a load that measures it, a model.

* `labkit.serving.engine`: continuous batching in one process, plain and speculative; a measuring
  instrument for a lesson, not a production server.
* `labkit.serving.load`: users who wait for their answers, and users who do not, with the
  definitions of vLLM's benchmark; against the engine or any server that speaks OpenAI's protocol.
* `labkit.serving.simulate`: the same users against a cost model.

For production there are vLLM, SGLang and TGI. vLLM served hierarchical heads such as these up to
its version 0.9, in the engine it had then and as a chain only; from 0.10 it failed on them, and
0.33.0 dropped them along with Medusa's. TGI, now only maintained, still has both. What such servers
run today instead are n-grams, draft models and EAGLE's heads.
"""

from labkit.facade import public_names

__getattr__, __dir__, __all__ = public_names(
    __name__,
    {
        "labkit.serving.bench": "PUBLISHED Level Loads bench_engine bench_server bench_simulated",
        "labkit.serving.costs": "NodeTable",
        "labkit.serving.engine": "ServingEngine",
        "labkit.serving.load": "Answer",
        "labkit.serving.replay": "bench_replayed",
        "labkit.serving.simulate": "check_prediction gains",
        "labkit.serving.started": "bench_command",
        "labkit.training.plan": "GPUS",
    },
)
