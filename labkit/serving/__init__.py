"""Many users of one model at once: an engine that batches them, a load, and a simulation.

* `labkit.serving.engine`: continuous batching in one process, plain and speculative; a measuring
  instrument for a lesson, not a production server.
* `labkit.serving.load`: users who wait for their answers, and requests at a rate, with the
  definitions of vLLM's benchmark; for the engine or any server that speaks OpenAI's protocol.
* `labkit.serving.costs`: the best number of draft nodes for each batch size.
* `labkit.serving.simulate`: the same users on a cost model.
* `labkit.serving.replay`: random weights of a published shape, for times without the model.

For production there are vLLM, SGLang and TGI. vLLM served hierarchical heads such as these up to
its version 0.9, in the engine it had then and as a chain only; from 0.10 it failed on them, and
0.33.0 dropped them along with Medusa's. TGI, now only maintained, still has both. What such servers
run today instead are n-grams, draft models and EAGLE's heads.
"""

from labkit.facade import public_names

__getattr__, __dir__, __all__ = public_names(
    __name__,
    {
        "labkit.serving.bench": "PUBLISHED PUBLISHED_GAINS Level Loads bench_command bench_engine "
        "bench_server bench_simulated",
        "labkit.serving.costs": "NodeTable",
        "labkit.serving.engine": "ServingEngine",
        "labkit.serving.load": "Answer",
        "labkit.serving.replay": "bench_replayed",
        "labkit.records": "gains",
        "labkit.serving.simulate": "check_prediction",
        "labkit.training.plan": "GPUS",
    },
)
