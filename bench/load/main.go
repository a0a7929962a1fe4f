// Command load posts collections to `/v1/collections` and checks each answer: status and accepted count. Closed loop: each
// of N connections sends its next request on its last one's answer. Open loop: requests are due at fixed moments, and a
// latency counts from the moment that its request was due, whether or not a connection was free then (which corrects for
// coordinated omission). Every payload is distinct; the sum of the fingerprints of all acknowledged ones is in the report,
// to be compared with the sink's.
//
// One thread, non-blocking sockets and epoll instead of goroutines: it shares its two cores with all that it measures.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"time"
)

// plan is what to send.
type plan struct {
	address     netip.AddrPort
	path        string
	token       string
	connections int
	requests    int     // in all
	rate        float64 // requests a second; 0: closed loop
	payloads    int     // a request
	bytes       int     // a payload
	deadline    time.Duration
	seed        uint64
	ids         bool // the answer must say how many were accepted
}

func main() {
	runtime.GOMAXPROCS(1)
	report, err := run(os.Args[1:])
	if err != nil {
		log.Fatal(err)
	}
	line, err := json.Marshal(report)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(line))
}

func run(arguments []string) (*report, error) {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	var p plan
	target := flags.String("url", "", "where to POST, http://127.0.0.1:PORT/path")
	flags.StringVar(&p.token, "token", "bench", "the envelope's token")
	flags.IntVar(&p.connections, "connections", 64, "connections kept open")
	flags.IntVar(&p.requests, "requests", 10_000, "requests in all")
	flags.Float64Var(&p.rate, "rate", 0, "requests a second (open loop); 0: as fast as they are answered (closed loop)")
	flags.IntVar(&p.payloads, "payloads", 1, "payloads a request")
	flags.IntVar(&p.bytes, "bytes", 1024, "bytes a payload")
	flags.DurationVar(&p.deadline, "deadline", 2*time.Minute, "for all of it")
	flags.Uint64Var(&p.seed, "seed", uint64(time.Now().UnixNano()), "first number of the payloads")
	flags.BoolVar(&p.ids, "counted", true, `the answer must hold "accepted": n`)
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	parsed, err := url.Parse(*target)
	if err != nil {
		return nil, err
	}
	if p.address, err = netip.ParseAddrPort(parsed.Host); err != nil {
		return nil, fmt.Errorf("-url %q: %w", *target, err)
	}
	if p.path = parsed.Path; p.path == "" {
		p.path = "/"
	}
	if p.connections < 1 || p.payloads < 1 || p.requests < 1 {
		return nil, fmt.Errorf("connections, payloads and requests are at least 1")
	}
	return drive(p)
}
