package main

import (
	"hash/crc32"
	"hash/maphash"
	"sync"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fingerprint is 64 bits of a body, the same function as the load generator's: its sum over all bodies does not depend on
// their order. CRC-32C with the length beside it, mixed so that sums of similar bodies do not cancel out.
func fingerprint(body []byte) uint64 {
	x := uint64(crc32.Checksum(body, castagnoli)) | uint64(len(body))<<32
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// tally is what was stored: counts, and one number a key. It owns no body.
type tally struct {
	mutex     sync.Mutex
	seed      maphash.Seed
	keys      map[uint64]uint64 // the key's hash → its body's fingerprint
	puts      uint64
	bytes     uint64
	sum       uint64 // over the distinct keys, of what each holds last
	changed   uint64 // a key written again with another body
	first, at int64  // unix nanoseconds of the first and of the latest put
}

func newTally() *tally { return &tally{seed: maphash.MakeSeed(), keys: map[uint64]uint64{}} }

func (t *tally) store(path, body []byte, nowNs int64) {
	name, mark := maphash.Bytes(t.seed, path), fingerprint(body)
	t.mutex.Lock()
	defer t.mutex.Unlock()
	before, known := t.keys[name]
	if known && before != mark {
		t.changed++
	}
	t.keys[name] = mark
	t.sum += mark - before // unsigned numbers wrap around, here and in the load generator
	t.puts++
	t.bytes += uint64(len(body))
	if t.first == 0 {
		t.first = nowNs
	}
	t.at = nowNs
}

func (t *tally) holds(path []byte) bool {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	_, known := t.keys[maphash.Bytes(t.seed, path)]
	return known
}

// Stats is the answer of /stats. The checksum is text: JSON readers cut numbers of 64 bits.
type Stats struct {
	Puts     uint64 `json:"puts"`
	Keys     int    `json:"keys"`
	Bytes    uint64 `json:"bytes"`
	Checksum string `json:"checksum"`
	Changed  uint64 `json:"changed"`
	FirstNs  int64  `json:"first_ns"`
	LastNs   int64  `json:"last_ns"`
	Open     int64  `json:"open_connections"`
	OpenMax  int64  `json:"open_connections_max"`
}
