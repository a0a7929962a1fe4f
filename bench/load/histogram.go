package main

import "math/bits"

const (
	precisionBits = 7 // values are told apart to 1 in 128, as HDR histograms of two digits do
	buckets       = (64 - precisionBits) << precisionBits
)

// histogram counts latencies in nanoseconds, in steps that grow with the value.
type histogram struct {
	counts [buckets]uint32
	total  uint64
	max    int64
}

func bucketOf(value uint64) int {
	if value < 1<<precisionBits {
		return int(value)
	}
	shift := bits.Len64(value) - precisionBits - 1
	return (shift+1)<<precisionBits + int(value>>shift) - 1<<precisionBits
}

// lowest is the smallest value of a bucket.
func lowest(bucket int) uint64 {
	if bucket < 1<<precisionBits {
		return uint64(bucket)
	}
	shift := bucket>>precisionBits - 1
	return uint64(bucket&(1<<precisionBits-1)|1<<precisionBits) << shift
}

func (h *histogram) add(ns int64) {
	ns = max(ns, 0)
	h.counts[min(bucketOf(uint64(ns)), buckets-1)]++
	h.total++
	h.max = max(h.max, ns)
}

// quantile is the upper end of the bucket below which that share of all values lies.
func (h *histogram) quantile(share float64) int64 {
	wanted := uint64(share*float64(h.total) + 0.5)
	var seen uint64
	for bucket, count := range h.counts {
		seen += uint64(count)
		if seen >= wanted && count > 0 {
			return min(int64(lowest(bucket+1)), h.max)
		}
	}
	return h.max
}
