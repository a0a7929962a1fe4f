// Command go-seed is the design that Spillway replaces, written anew: a handler puts every payload of a collection into
// a queue in memory and answers; a dispatcher hands the queue's jobs to a pool of workers; a worker stores its payload
// as one object in S3. It is a peer of the benchmark and promises what that design promises, and no more: the queue dies
// with the process, and a payload whose upload fails is logged and gone.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
)

type settings struct {
	port         string
	endpoint     string
	bucket       string
	folder       string
	maxWorkers   int
	maxQueue     int
	maxBodyBytes int64
}

func main() {
	raw := flag.Bool("raw", false, "keep payloads as the client's bytes (json.RawMessage) instead of decoding and encoding them")
	flag.Parse()
	if err := run(context.Background(), *raw); err != nil {
		log.Fatal(err)
	}
}

// run serves until the process is ended.
func run(ctx context.Context, raw bool) error {
	chosen, err := settingsFromEnvironment()
	if err != nil {
		return err
	}
	bucket, err := openBucket(ctx, chosen)
	if err != nil {
		return err
	}
	queue := make(chan Job, chosen.maxQueue)
	NewDispatcher(chosen.maxWorkers, queue, bucket).Run()
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", chosen.port))
	if err != nil {
		return err
	}
	collect := collections[Decoded]
	if raw {
		collect = collections[Raw]
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/collections", collect(queue, chosen.maxBodyBytes))
	mux.HandleFunc("/livez", func(http.ResponseWriter, *http.Request) {})
	return http.Serve(listener, mux)
}

func settingsFromEnvironment() (settings, error) {
	maxWorkers, err := number("MAX_WORKERS", 64)
	if err != nil {
		return settings{}, err
	}
	maxQueue, err := number("MAX_QUEUE", 10_000)
	if err != nil {
		return settings{}, err
	}
	maxBodyBytes, err := number("MAX_LENGTH", 64<<20)
	return settings{
		port:         text("PORT", "8080"),
		endpoint:     text("S3_ENDPOINT", ""),
		bucket:       text("S3_BUCKET", "spillway"),
		folder:       text("S3_FOLDER", "payloads"),
		maxWorkers:   maxWorkers,
		maxQueue:     maxQueue,
		maxBodyBytes: int64(maxBodyBytes),
	}, err
}

func text(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

func number(name string, fallback int) (int, error) {
	value, err := strconv.Atoi(text(name, strconv.Itoa(fallback)))
	if err != nil || value < 1 {
		return 0, fmt.Errorf("%s must be a whole number above 0, not %q", name, os.Getenv(name))
	}
	return value, nil
}
