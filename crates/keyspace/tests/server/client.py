"""Talks to the server at the port given, as a program in Python would."""

import sys
import redis

for protocol in (2, 3):
    r = redis.Redis(port=int(sys.argv[1]), protocol=protocol, decode_responses=True)
    assert r.ping()
    assert r.set("k", "välue", ex=100) and r.get("k") == "välue"
    assert 0 < r.ttl("k") <= 100
    assert r.set("k", "other", nx=True) is None
    assert r.set("k", "other", xx=True, get=True) == "välue"
    assert r.incrbyfloat("f", 0.1) == 0.1 and r.incr("n", 5) == 5

    assert r.hset("h", mapping={f"f{i}": i for i in range(1000)}) == 1000
    assert len(r.hgetall("h")) == 1000 and r.hmget("h", "f1", "none") == ["1", None]
    assert len(dict(r.hscan_iter("h", match="f9*"))) == 111
    assert r.hincrby("h", "f1", 2) == 3 and r.hexists("h", "f2")

    assert r.rpush("l", *range(10)) == 10
    assert r.lrange("l", 0, -1) == [str(i) for i in range(10)]
    assert r.lpop("l", 2) == ["0", "1"] and r.lindex("l", 0) == "2"
    assert r.ltrim("l", 1, 3) and r.llen("l") == 3

    with r.pipeline(transaction=False) as pipe:
        for i in range(2000):
            pipe.set(f"many:{i}", i)
        pipe.mget([f"many:{i}" for i in range(3)])
        assert pipe.execute()[-1] == ["0", "1", "2"]
    assert len(set(r.scan_iter(match="many:*", count=100))) == 2000
    assert r.unlink(*[f"many:{i}" for i in range(2000)]) == 2000

    try:
        r.lpush("k", 1)
        raise AssertionError("a list of a string")
    except redis.ResponseError as error:
        assert "WRONGTYPE" in str(error)
    assert "get" in r.command() and r.command_count() > 50
    assert r.info("server")["redis_version"] == "7.0.15"
    assert sorted(r.keys()) == ["f", "h", "k", "l", "n"]
    assert r.flushall() and r.dbsize() == 0

print("all is well")
