"""Decide by another MBR library: run in that library's own Python, where labkit is not installed.

Reads one JSON object on standard input, ``{"peer", "cases", "ways"}``: a case has two lists of
texts, ``hypotheses`` and ``evidence``; a way is a metric and a decoder of the library.
Prints one JSON object on the last line: for each way either its ``error``, or ``seconds`` and for
each case the ``best`` index and, where the decoder is exact, every expected ``scores``.
"""

import json
import sys
import time


def mbrs_decider(metric_name, decoder_name):
    """Return a function from a case to (index, scores or None) by mbrs."""
    from mbrs.decoders import get_decoder
    from mbrs.metrics import get_metric

    metric_class, decoder_class = get_metric(metric_name), get_decoder(decoder_name)
    metric = metric_class(metric_class.Config())
    decoder = decoder_class(decoder_class.Config(), metric)

    def decide(case):
        hypotheses, evidence = case["hypotheses"], case["evidence"]
        best = decoder.decode(hypotheses, evidence, nbest=1).idx[0]
        exact = decoder_name == "mbr"
        return int(best), metric.expected_scores(hypotheses, evidence).tolist() if exact else None

    return decide


def mbr_decider(metric_name, decoder_name):
    """Return a function from a case to (index, scores) by mbr, whose chrF is fastchrf's."""
    from mbr import MBRConfig
    from mbr.metrics.fastchrf import FastChrfMetricRunner

    if (metric_name, decoder_name) != ("chrf", "mbr"):
        raise ValueError("this way is not compared for mbr")

    def decide(case):
        hypotheses, evidence = case["hypotheses"], case["evidence"]
        sizes = {"num_samples": len(hypotheses), "num_references": len(evidence)}
        runner = FastChrfMetricRunner(MBRConfig(metric="fastchrf", **sizes), None)
        columns = [[text] for text in hypotheses], [[text] for text in evidence]
        scores = runner._compute_str_metric(*columns)[0].mean(-1)
        return int(scores.argmax()), scores.tolist()

    return decide


def main():
    """Answer the one request."""
    asked = json.load(sys.stdin)
    make = {"mbrs": mbrs_decider, "mbr": mbr_decider}[asked["peer"]]
    answers = []
    for way in asked["ways"]:
        try:
            decide = make(*way)
            started = time.perf_counter()
            decided = [decide(case) for case in asked["cases"]]
            answers.append({"seconds": time.perf_counter() - started, "decided": decided})
        except Exception as error:  # a way that the library does not have is told, not fatal
            answers.append({"error": f"{type(error).__name__}: {error}"[:300]})
    print("\n" + json.dumps({"answers": answers}))


if __name__ == "__main__":
    main()
