"""What test_python_torch.py runs with a Python that has PyTorch: `python torch_jobs.py JOB JSON` prints what the job found
as its last line. Started as a program, since workers that are spawned import the main module anew."""
import gc
import json
import os
import pickle
import resource
import sys
import time
import warnings

warnings.simplefilter("error", ResourceWarning)
warnings.filterwarnings("ignore", "This DataLoader will create")   # more workers than this machine has cores

import torch
import torch.distributed
import torch.multiprocessing
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from s3dlio_proxy import Client
from s3dlio_proxy.torch import S3IterableDataset, S3MapDataset, Sample, UriList


def length_and_number(sample):
    return len(sample.data), int(sample.uri.rpartition("/")[2])


def only_data(sample):
    return torch.frombuffer(bytearray(sample.data[:8].ljust(8, b"\0")), dtype=torch.uint8)


def loader(dataset, workers, method, **kw):
    kw.setdefault("batch_size", None)
    return DataLoader(dataset, num_workers=workers, multiprocessing_context=method if workers else None, timeout=60 if workers
                      else 0, **kw)


def map_style(url, prefix, **_):
    client = Client(url)
    plain = S3MapDataset(prefix, client=client)
    found = {"uris": list(plain.uris), "first": [plain[0].uri, len(plain[0].data)], "last": plain[-1].uri, "length": len(plain),
             "batch": [s.uri for s in plain.__getitems__([3, 1, 2])], "none": plain.__getitems__([]), "loaded": {}}
    some = S3MapDataset(prefix, client=client, where=lambda o: o.uri.endswith("7"))
    found["where"] = list(some.uris)
    data = S3MapDataset(prefix, client=client, transform=length_and_number)
    for workers, method in ((0, None), (3, "fork"), (2, "spawn")):
        got = []
        for sizes, numbers in loader(data, workers, method, batch_size=7, shuffle=True):
            got += list(zip(sizes.tolist(), numbers.tolist()))
        found["loaded"]["%s %d" % (method, workers)] = sorted(got)
    named = next(iter(loader(plain, 2, "fork", batch_size=4)))
    found["collated"] = [type(named).__name__, list(named.uri), [len(d) for d in named.data]]
    shares = []
    for rank in range(3):
        sampler = DistributedSampler(data, num_replicas=3, rank=rank, shuffle=True, seed=5, drop_last=True)
        sampler.set_epoch(2)
        shares.append([n for _, numbers in loader(data, 2, "fork", sampler=sampler, batch_size=5) for n in numbers.tolist()])
    found["shares"] = shares
    found["pickled"] = pickle.loads(pickle.dumps(data))[4]
    return found


def exactly_once(url, prefix, **_):
    found = {}
    for workers, method in ((0, None), (1, "fork"), (3, "fork"), (2, "spawn")):
        for world, shuffle, ordered in ((1, False, True), (3, True, True), (2, True, False)):
            if method == "spawn" and world != 2:
                continue   # each worker takes seconds to import torch
            shares = []
            for rank in range(world):
                data = S3IterableDataset(prefix, client=Client(url), transform=length_and_number, rank=rank, world_size=world,
                                         shuffle=shuffle, seed=3, ordered=ordered, prefetch=4)
                shares.append([n for _, n in loader(data, workers, method)])
            found["%s %d, %d ranks%s%s" % (method, workers, world, ", shuffled" if shuffle else "",
                                           "" if ordered else ", unordered")] = shares
    return found


def epochs(url, prefix, **_):
    """The order of each epoch, in the process itself and in workers that are kept."""
    def numbers(batches):
        return [int(s.uri.rpartition("/")[2]) for s in batches]
    alone = S3IterableDataset(prefix, client=Client(url), shuffle=True, seed=11)
    kept = S3IterableDataset(prefix, client=Client(url), shuffle=True, seed=11)
    found = {"alone": [], "kept": [], "order": []}
    loaders = [("fork", loader(kept, 2, "fork", persistent_workers=True)),
               ("spawn", loader(kept, 2, "spawn", persistent_workers=True))]
    for epoch in (0, 1, 2, 1):
        alone.set_epoch(epoch)
        kept.set_epoch(epoch)
        found["alone"].append(numbers(alone))
        found["order"].append([int(alone.uris[i].rpartition("/")[2]) for i in alone.order()])
        found["kept"].append({m: numbers(x) for m, x in loaders})
    other = S3IterableDataset(prefix, client=Client(url), shuffle=True, seed=12)
    found["other seed"] = numbers(other)
    return found


def read_ahead(url, prefix, prefetch):
    """How many objects were asked for, or are about to be, when the consumer has had one, two, three."""
    data = S3IterableDataset(prefix, client=Client(url), prefetch=prefetch)
    taken = []

    class Counting(UriList):
        def __getitem__(self, index):
            taken.append(index)
            return super().__getitem__(index)
    data.uris = Counting(data.uris)
    items = iter(data)
    counts = []
    for _ in range(3):
        next(items)
        counts.append(len(taken))
    return counts


def interleaved(url, prefix, **_):
    data = S3IterableDataset(prefix, client=Client(url), shuffle=True, seed=3, transform=length_and_number)
    found = {"order": data.order()}
    for workers, size in ((2, 1), (3, None), (2, 4), (3, 4)):
        numbers = []
        for _, n in loader(data, workers, "fork", batch_size=size):
            numbers += [n] if size is None else n.tolist()
        found["%d of %s" % (workers, size)] = numbers
    return found


def uneven(url, prefix, **_):
    found = {}
    for drop in (False, True):
        shares = [S3IterableDataset(prefix, client=Client(url), rank=r, world_size=7, drop_tail=drop) for r in range(7)]
        found[str(drop)] = [[s.uri for s in share] for share in shares]
    os.environ.update(RANK="1", WORLD_SIZE="4")
    data = S3IterableDataset(prefix, client=Client(url))
    found["environment"] = [data.rank, data.world_size, [s.uri for s in data]]
    return found


def _rank(rank, world, port, url, prefix, queue):
    torch.distributed.init_process_group("gloo", init_method="tcp://127.0.0.1:%d" % port, rank=rank, world_size=world)
    data = S3IterableDataset(prefix, client=Client(url), transform=length_and_number, shuffle=True, seed=1)
    total = torch.zeros(1, dtype=torch.int64)
    got = []
    for sizes, numbers in loader(data, 2, "fork", batch_size=4):
        got += numbers.tolist()
        total += int(sizes.sum())
    torch.distributed.all_reduce(total)
    queue.put((rank, data.rank, data.world_size, got, int(total)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def distributed(url, prefix, port, **_):
    """Two ranks of a process group that is a real one."""
    context = torch.multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    ranks = torch.multiprocessing.start_processes(_rank, (2, port, url, prefix, queue), nprocs=2, join=False,
                                                  start_method="spawn")
    got = [queue.get(), queue.get()]
    while not ranks.join(timeout=60):
        pass
    return sorted(got)


def failures(url, prefix, **_):
    missing = list(UriList(s.uri for s in Client(url).list(prefix)))[:4] + [prefix + "missing"]
    found = {}
    gc.disable()   # of the iterators that failed, see below
    for workers, method in ((0, None), (1, "fork")):
        for kind in (S3MapDataset, S3IterableDataset):
            try:
                list(loader(kind(missing, client=Client(url)), workers, method))
            except FileNotFoundError as e:
                found["%s %d" % (kind.__name__, workers)] = [type(e).__name__, str(e)]
    for name, make in (("not a URI", lambda: S3MapDataset(["/x"])), ("rank", lambda: S3IterableDataset([], rank=2, world_size=2)),
                       ("half", lambda: S3IterableDataset([], rank=2)), ("prefetch", lambda: S3IterableDataset([], prefetch=0)),
                       ("where", lambda: S3MapDataset([], where=bool))):
        try:
            make()
        except ValueError as e:
            found[name] = str(e)
    return found


def left_early(url, prefix, **_):
    """Loops that end in the middle leave nothing that holds the process up."""
    for workers in (0, 2):
        for _ in range(3):
            for n, _sample in enumerate(loader(S3IterableDataset(prefix, client=Client(url)), workers, "fork")):
                if n == 3:
                    break
    return "left"


def memory(url, prefix, objects, bytes_ahead, **_):
    """How much the resident set grew, in bytes, while a slow consumer read objects that are much more in all."""
    data = S3IterableDataset(prefix, client=Client(url), prefetch=32, prefetch_bytes=bytes_ahead)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = 0
    for sample in data:
        total += len(sample.data)
        time.sleep(0.02)
    return {"total": total, "grown": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024,
            "count": len(data.uris)}


def uri_list(**_):
    names = ["s3://b/ü", "s3://b/", "s3://b/\udcff x", "s3://b/" + "k" * 5000]
    uris = UriList(names)
    many = UriList("s3://bucket/some/prefix/%08d" % i for i in range(200000))
    return {"same": list(uris) == names and list(pickle.loads(pickle.dumps(uris))) == names,
            "slice": [list(uris[1:3]) == names[1:3], list(uris[::-2]) == names[::-2], uris[-1] == names[-1]],
            "index error": _raises(IndexError, lambda: uris[4]) and _raises(IndexError, lambda: uris[-5]),
            "pickle bytes each": len(pickle.dumps(many, 5)) / len(many), "count": len(many), "last": many[-1]}


def _raises(kind, do):
    try:
        do()
    except kind:
        return True
    return False


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(globals()[sys.argv[1]](**json.loads(sys.argv[2]))), flush=True)
    if sys.argv[1] == "failures":
        os._exit(0)   # DataLoader needs seconds to end a worker after an exception, whatever the dataset
