// Command sink is a stand-in for S3 that costs little and keeps nothing but counts and checksums: what a client stored is
// told by /stats, and compared with what the load generator sent. It answers every PUT with 200 and the body's MD5 as the
// ETag, after a fixed delay if asked, over plain HTTP and over TLS. It must never be what a measurement measures, so it
// reads from the connection itself instead of through net/http. It is no fake for tests: it checks no signature and knows
// no fault.
package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"runtime"
	"time"
)

func main() {
	runtime.GOMAXPROCS(1) // a second thread looks for work that one does at once, and takes the core of who is measured
	listen := flag.String("listen", "127.0.0.1:0", "address for plain HTTP, and for /stats and /reset")
	secure := flag.String("tls-listen", "127.0.0.1:0", "address for TLS; empty: none")
	directory := flag.String("directory", "", "folder that the CA's file is written to")
	flag.Parse()
	if err := run(*listen, *secure, *directory); err != nil {
		log.Fatal(err)
	}
}

func run(listen, secure, directory string) error {
	server := newServer()
	plain, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	started := map[string]any{"port": port(plain)}
	if secure != "" {
		inner, err := net.Listen("tcp", secure)
		if err != nil {
			return err
		}
		certificate, authority, err := certificates(directory)
		if err != nil {
			return err
		}
		settings := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
		started["tls_port"], started["ca_file"] = port(inner), authority
		go server.serve(tls.NewListener(inner, settings))
	}
	line, err := json.Marshal(started)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	go endWithParent()
	server.serve(plain)
	return nil
}

func port(listener net.Listener) int { return listener.Addr().(*net.TCPAddr).Port }

// endWithParent ends this process when whoever started it is gone: a benchmark that was killed leaves nothing running.
func endWithParent() {
	parent := os.Getppid()
	for os.Getppid() == parent {
		time.Sleep(time.Second)
	}
	os.Exit(0)
}
