# What python-etcd can do, done to the address that is given; it stops at the first thing that is not as it should be.
import sys, threading, time
import etcd

client = etcd.Client(host="127.0.0.1", port=int(sys.argv[1]), allow_reconnect=True)
client.write("/nodes/n1", "1")
assert client.read("/nodes/n1").value == "1"
assert client.get("/nodes/n1").value == "1"
client.write("/nodes/n2", "2", ttl=1000)
assert 990 < client.read("/nodes/n2").ttl <= 1000
client.refresh("/nodes/n2", ttl=2000)
assert client.read("/nodes/n2").ttl > 1990
client.write("/nodes/n1", "3", prevValue="1")
try:
    client.write("/nodes/n1", "4", prevValue="1")
    raise SystemExit("a comparison that must fail")
except etcd.EtcdCompareFailed:
    pass
try:
    client.write("/nodes/n1", "4", prevExist=False)
    raise SystemExit("a key that must exist")
except etcd.EtcdAlreadyExist:
    pass
try:
    client.read("/nowhere")
    raise SystemExit("a key that must not exist")
except etcd.EtcdKeyNotFound:
    pass
client.write("/queue", "a", append=True)
client.write("/queue", "b", append=True)
queue = client.read("/queue", recursive=True, sorted=True)
assert [leaf.value for leaf in queue.leaves] == ["a", "b"], queue
client.write("/dir/sub", None, dir=True)
assert client.read("/dir/sub").dir
result = client.read("/nodes/n1")
result.value = "5"
client.update(result)
client.test_and_set("/nodes/n1", "6", "5")
seen = []
index = client.read("/nodes/n1").etcd_index
watcher = threading.Thread(target=lambda: seen.append(client.watch("/nodes", recursive=True, index=index + 1)))
watcher.start()
client.write("/nodes/n3", "7")
watcher.join(60)
assert seen and seen[0].key == "/nodes/n3" and seen[0].action == "set", seen
try:
    client.delete("/nodes")
    raise SystemExit("a directory that must not go")
except etcd.EtcdNotFile:
    pass
client.delete("/nodes", recursive=True)
assert "/nodes" not in client
lock = etcd.Lock(client, "one")
lock.acquire(blocking=True, lock_ttl=60)
assert lock.is_acquired
lock.release()
assert client.machines, "its own address"
assert client.leader["name"] == "h1", client.leader
assert client.version
assert client.stats["state"] == "StateLeader"
assert client.store_stats["setsSuccess"] > 0
print("all is well")
