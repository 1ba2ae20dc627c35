"""Times the networks of this folder in ONNX Runtime and writes `board.json`.

    python measure.py [--threads N] [--name DEVICE]

`dcnas lut pack` and `dcnas pack` write this script beside ONNX files and a list; it needs Python 3.9,
numpy and onnxruntime, nothing else. Leave the machine alone meanwhile. Killed, the same command goes on.

Networks take turns, round after round, so that drift hits all alike, and each is loaded anew for its
turn, so that memory holds one at a time. Of those whose parts are listed the runtime's own profiler
gives the time of each node, summed by part: nodes as its graph optimisations leave them, between their
neighbours. The profiler itself costs some microseconds per node; so they are timed without it as well.
"""

import argparse
import json
import os
import platform
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

LIST, RESULT = "list.json", "board.json"
WARMUP = 3  # passes after loading that do not count
REFERENCE_PASSES = 20
BUSY_PCT = 10.0  # two timings of one network that differ by more say that something else runs
PARITY = 1e-3  # largest difference from the stored outputs: other processors round otherwise


class Refusal(Exception):
    """Why nothing is measured, in a sentence."""


def device_name():
    """The processor's or board's name, as `latency.measure` has it (a test holds them equal)."""
    cpuinfo, tree = (
        Path(name).read_text(errors="replace") if Path(name).exists() else ""
        for name in ("/proc/cpuinfo", "/proc/device-tree/model")
    )
    known = dict(re.findall(r"^([\w ]+?)\s*: (.+)", cpuinfo, re.MULTILINE))
    if name := known.get("model name") or tree.strip("\0\n ") or known.get("Model"):
        return name.strip()
    maker = (known.get(f"CPU {key}", "") for key in ("implementer", "part"))  # boards are all "aarch64"
    return " ".join(filter(None, (platform.processor() or platform.machine(), *maker)))


def open_session(path, threads, profile=None, side_by_side=False):
    """A file, or its bytes, in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    if side_by_side:  # two branches at a time, with half of the threads each
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
        options.inter_op_num_threads, options.intra_op_num_threads = 2, threads // 2
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    source = path if isinstance(path, bytes) else str(path)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def network_ms(path, threads, image, passes, side_by_side=False):
    """The time of each of so many passes of a whole network, in ms."""
    session, times = open_session(path, threads, side_by_side=side_by_side), []
    feed = {session.get_inputs()[0].name: image}
    for _ in range(WARMUP + passes):
        start = time.perf_counter_ns()
        session.run(None, feed)
        times.append((time.perf_counter_ns() - start) / 1e6)
    return times[WARMUP:]


def branches_gain(path, threads, image, passes, rounds):
    """How many times as fast a network is whose decoder and classification branch run side by side as
    with one after the other, both on as many threads, two or more: quartiles over rounds, in turns.
    """
    threads, gains = max(2, threads), []
    for n in range(rounds):
        ms = {}
        for together in (False, True) if n % 2 else (True, False):
            ms[together] = np.median(network_ms(path, threads, image, passes, together))
        gains.append(float(ms[False] / ms[True]))
    low, median, high = (round(float(gain), 4) for gain in np.quantile(gains, [0.25, 0.5, 0.75]))
    return {"threads": threads, "median": median, "q25": low, "q75": high}


def branches_text(gain):
    """The gain in a sentence."""
    times = f"{gain['median']:.2f} ({gain['q25']:.2f} to {gain['q75']:.2f}) times as fast"
    worth = "" if gain["q25"] > 1 else ": not worth it here"
    how = f"side by side on {gain['threads']} threads"
    return f"Decoder and classification branch {how}: {times} as one after the other{worth}"


def parts_ms(path, threads, image, passes, parts):
    """The times of a network's parts, a dict per pass, in ms, and how many nodes each has; `parts`: how
    their names begin.

    Nodes that the runtime adds (reorders of memory) have no such name: they count for the part before.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(path, threads, os.path.join(folder, "profile"))
        feed = {session.get_inputs()[0].name: image}
        for _ in range(WARMUP + passes):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    count, passes_ms = len(nodes) // (WARMUP + passes), []
    for first in range(WARMUP * count, len(nodes), count):
        part, total, counts = next(iter(parts.values())), {}, {}
        for event in nodes[first : first + count]:
            part = next((key for start, key in parts.items() if event["name"].startswith(start)), part)
            total[part] = total.get(part, 0.0) + event["dur"] / 1e3
            counts[part] = counts.get(part, 0) + 1
        passes_ms.append(total)
    return passes_ms, counts


def require_quiet(path, threads, image, limit_pct):
    """A `Refusal` if two timings of a network, one after the other, differ by more than the limit."""
    first, second = (float(np.median(network_ms(path, threads, image, REFERENCE_PASSES))) for _ in "12")
    gap_pct = 100 * abs(first - second) / min(first, second)
    if gap_pct > limit_pct:
        raise Refusal(
            f"the machine is busy: two timings of one network, {first:.2f} and {second:.2f} ms, differ "
            f"by {gap_pct:.0f}%, above {limit_pct:g}%; stop what else runs and start this again; it "
            "goes on."
        )


def begun(path, head):
    """What an earlier call measured; a `Refusal` if it measured anything else."""
    if not path.exists():
        return {**head, "rounds": 0, "samples": {}, "nodes": {}}
    result = json.loads(path.read_text())
    for key, value in head.items():
        if result.get(key) != value:
            text = "with another list" if key == "pack" else f"with {key} {result.get(key)}, not {value}"
            raise Refusal(f"{path} was begun {text}; remove it, or use what it had.")
    return result


def measure(folder, threads=None, name=None, limit_pct=BUSY_PCT, progress=True):
    """Times all networks of a folder, round after round; what `board.json` then holds."""
    folder = Path(folder)
    pack = json.loads((folder / LIST).read_text())
    missing = [entry["file"] for entry in pack["files"] if not (folder / entry["file"]).exists()]
    if missing:
        raise Refusal(f"{missing[0]} is missing, the pack is not whole; write or copy it anew.")
    threads = threads or pack["threads"]
    head = {"format": 1, "pack": pack, "device": name or device_name(), "threads": threads}
    head["runtime"] = "onnxruntime " + onnxruntime.__version__ + ", CPUExecutionProvider"
    result = begun(folder / RESULT, head)
    image = np.random.default_rng(0).random(pack["shape"], dtype=np.float32)
    start, before = time.monotonic(), result["rounds"]
    for n in range(before, pack["rounds"]):
        require_quiet(folder / pack["files"][0]["file"], threads, image, limit_pct)
        for at, entry in enumerate(pack["files"]):
            path = folder / entry["file"]
            if entry["profile"]:
                totals, counts = parts_ms(path, threads, image, pack["passes"], entry["parts"])
                result["nodes"][entry["file"]] = counts
                for total in totals:
                    for part, ms in total.items():
                        result["samples"].setdefault(part, []).append(round(ms, 5))
            times = network_ms(path, threads, image, pack["passes"])
            result["samples"].setdefault(entry["file"], []).extend(round(ms, 5) for ms in times)
            if progress:
                done = n - before + (at + 1) / len(pack["files"])
                left_s = (time.monotonic() - start) * (pack["rounds"] - before - done) / done
                text = f"\rround {n + 1} of {pack['rounds']}, {left_s:.0f} s left   "
                print(text, end="", file=sys.stderr, flush=True)
        result.update(rounds=n + 1, date=time.strftime("%Y-%m-%d"))
        part = folder / (RESULT + ".part")
        part.write_text(json.dumps(result))
        os.replace(part, folder / RESULT)
    if progress:
        print(file=sys.stderr)
    return result


def slowdown_of(result):
    """How many times as long as a table says its networks take now, by the median of those beside the
    one that is measured; None where there are none."""
    times = {e["file"]: e["table_ms"] for e in result["pack"]["files"] if "table_ms" in e}
    ratios = [np.median(result["samples"][file]) / ms for file, ms in times.items()]
    return round(float(np.median(ratios)), 4) if ratios else None


def largest_difference(folder, entry, threads):
    """Of the outputs from those that are stored beside the network."""
    with np.load(folder / entry["stored"], allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    session = open_session(folder / entry["file"], threads)
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, {"noisy": arrays["noisy"]})
    return max(float(np.abs(ours - arrays[name]).max()) for name, ours in zip(names, outputs))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, help="not given: as the list says")
    parser.add_argument("--name", help="of the device; not given: as it calls itself")
    parser.add_argument(
        "--busy-pct", type=float, default=BUSY_PCT, help="refuse a machine that is busier"
    )
    args, folder = parser.parse_args(), Path(__file__).resolve().parent
    try:
        result = measure(folder, args.threads, args.name, args.busy_pct)
        for entry in result["pack"]["files"]:
            if "stored" in entry:
                quartiles = np.quantile(result["samples"][entry["file"]], [0.25, 0.5, 0.75])
                low, median, high = (round(float(ms), 4) for ms in quartiles)
                gap = largest_difference(folder, entry, result["threads"])
                result["latency_ms"] = {"median": median, "q25": low, "q75": high}
                result.update(largest_difference=gap, parity=bool(gap <= PARITY))
                if entry.get("branches"):
                    image = np.random.default_rng(0).random(result["pack"]["shape"], dtype=np.float32)
                    how = (result["threads"], image, result["pack"]["passes"], result["rounds"])
                    result["branches"] = branches_gain(folder / entry["file"], *how)
                    print(branches_text(result["branches"]))
                slowdown = result["slowdown"] = slowdown_of(result)
                (folder / RESULT).write_text(json.dumps(result))
                print(f"{entry['file']}: {median:.3f} ms ({low:.3f} to {high:.3f})")
                if "predicted_ms" in result["pack"]:
                    expected_ms, board = (result["pack"][key] for key in ("predicted_ms", "table_of"))
                    error = f"{100 * (median / expected_ms - 1):+.1f}% of it"
                    print(f"By the table of {board}: {expected_ms:.3f} ms; measured {error}")
                    if slowdown is not None:
                        error = f"{100 * (median / slowdown / expected_ms - 1):+.1f}%"
                        speed = f"{slowdown:.2f} times what the table says"
                        print(f"Networks beside it take {speed}; without that drift it is {error} off")
                print(
                    f"Largest difference from the stored outputs: {gap:.1g}, at most {PARITY:g} expected"
                )
    except KeyboardInterrupt:
        sys.exit("\nmeasure: stopped; the same command goes on.")
    except (Refusal, OSError, ValueError) as error:
        print(f"measure: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"Wrote {folder / RESULT}: {result['device']}, {result['threads']} threads")
    sys.exit(0 if result.get("parity", True) else 3)


if __name__ == "__main__":
    main()
