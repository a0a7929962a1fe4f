package main

import (
	"errors"
	"strconv"
	"syscall"
)

var errAnswer = errors.New("an answer that is no HTTP/1.1")

// report is what is printed.
type report struct {
	Requests    int            `json:"requests"` // answered 200, with the right count
	Payloads    int            `json:"payloads"` // of those
	Errors      map[string]int `json:"errors"`   // every other outcome, by name
	Seconds     float64        `json:"seconds"`
	PerS        float64        `json:"requests_per_s"`
	Rate        float64        `json:"rate"` // that was asked for; 0: a closed loop
	LatencyMs   map[string]any `json:"latency_ms"`
	LateMs      float64        `json:"sent_late_99_ms"` // open loop: from due to sent
	Checksum    string         `json:"checksum"`        // of the acknowledged payloads, the sum of their fingerprints
	CPUSeconds  float64        `json:"cpu_s"`           // this process's own
	CPUUs       float64        `json:"cpu_us_a_request"`
	Connections int            `json:"connections"`
}

// tallies are what becomes a report.
type tallies struct {
	requests, payloads int
	errors             map[string]int
	sum                uint64
	latency, late      histogram
}

func (t *tallies) report(p plan, tookNs int64) *report {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage) // fails for no valid argument
	cpu := float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
	ms := func(ns int64) float64 { return float64(ns) / 1e6 }
	took := float64(tookNs) / 1e9
	return &report{
		Requests: t.requests, Payloads: t.payloads, Errors: t.errors, Seconds: took,
		PerS: float64(t.requests) / took, Rate: p.rate, Checksum: strconv.FormatUint(t.sum, 16),
		LatencyMs: map[string]any{
			"p50": ms(t.latency.quantile(0.5)), "p90": ms(t.latency.quantile(0.9)), "p99": ms(t.latency.quantile(0.99)),
			"p99.9": ms(t.latency.quantile(0.999)), "max": ms(t.latency.max),
		},
		LateMs: ms(t.late.quantile(0.99)), CPUSeconds: cpu, CPUUs: cpu * 1e6 / float64(max(t.requests, 1)),
		Connections: p.connections,
	}
}
