package main

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// server answers connections, one goroutine each. The tally is replaced as a whole by /reset.
type server struct {
	tally       atomic.Pointer[tally]
	latency     atomic.Int64 // nanoseconds before a PUT is answered
	open        atomic.Int64
	openMax     atomic.Int64
	resetsMutex sync.Mutex
}

func newServer() *server {
	made := &server{}
	made.tally.Store(newTally())
	return made
}

func (s *server) serve(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Print(err)
			return
		}
		go s.converse(connection)
	}
}

// connection is one client's, with its buffers: nothing is allocated a request.
type connection struct {
	net.Conn
	reader             *bufio.Reader
	head, body, answer []byte
}

func (s *server) converse(accepted net.Conn) {
	defer accepted.Close()
	now := s.open.Add(1)
	defer s.open.Add(-1)
	for before := s.openMax.Load(); now > before && !s.openMax.CompareAndSwap(before, now); before = s.openMax.Load() {
	}
	c := &connection{Conn: accepted, reader: bufio.NewReaderSize(accepted, 8<<10)}
	for {
		again, err := s.exchange(c)
		if err != nil {
			var broken *net.OpError
			if !errors.Is(err, io.EOF) && !errors.As(err, &broken) {
				log.Print(err)
			}
			return
		}
		if !again {
			return
		}
	}
}

// exchange reads one request and answers it.
func (s *server) exchange(c *connection) (bool, error) {
	var head request
	var err error
	if head, c.head, err = readHead(c.reader, c.head); err != nil {
		return false, err
	}
	if head.expects && c.reader.Buffered() == 0 {
		if _, err := c.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
			return false, err
		}
	}
	if c.body, err = readBody(c.reader, head, c.body); err != nil {
		return false, err
	}
	if bytes.Equal(head.method, []byte("PUT")) && bytes.Count(head.path, []byte("/")) > 1 {
		s.put(c, head)
	} else {
		s.other(c, head)
	}
	_, err = c.Write(c.answer)
	return !head.closes, err
}

// probe is where our uploader tries the bucket before its first payload: answered like any PUT, and not counted.
var probe = []byte("/.spillway/")

func (s *server) put(c *connection, head request) {
	if latency := s.latency.Load(); latency > 0 {
		time.Sleep(time.Duration(latency))
	}
	if !bytes.Contains(head.path, probe) {
		s.tally.Load().store(head.path, c.body, time.Now().UnixNano())
	}
	sum := md5.Sum(c.body)
	a := append(c.answer[:0], "HTTP/1.1 200 OK\r\nETag: \""...)
	a = hex.AppendEncode(a, sum[:])
	a = append(a, "\"\r\nx-amz-request-id: 1\r\nServer: sink\r\n"...)
	if head.checksumName != nil {
		a = append(append(append(append(a, head.checksumName...), ": "...), head.checksumValue...), "\r\n"...)
	}
	c.answer = append(a, "Content-Length: 0\r\n\r\n"...)
}

// other answers what is no object's PUT: the two questions of the benchmark, and as little of S3 as clients ask at start.
func (s *server) other(c *connection, head request) {
	status, body := "200 OK", []byte(nil)
	switch {
	case bytes.Equal(head.path, []byte("/stats")):
		body = s.stats()
	case bytes.Equal(head.path, []byte("/reset")):
		s.reset(string(head.query))
	case bytes.Equal(head.method, []byte("HEAD")) && bytes.Count(head.path, []byte("/")) > 1:
		if !s.tally.Load().holds(head.path) {
			status = "404 Not Found"
		}
	case bytes.Equal(head.method, []byte("GET")):
		body = []byte("<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
	}
	if bytes.Equal(head.method, []byte("HEAD")) {
		body = nil
	}
	c.answer = fmt.Appendf(c.answer[:0], "HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

func (s *server) stats() []byte {
	t := s.tally.Load()
	t.mutex.Lock()
	defer t.mutex.Unlock()
	line, err := json.Marshal(Stats{
		Puts: t.puts, Keys: len(t.keys), Bytes: t.bytes, Checksum: strconv.FormatUint(t.sum, 16), Changed: t.changed,
		FirstNs: t.first, LastNs: t.at, Open: s.open.Load(), OpenMax: s.openMax.Load(),
	})
	if err != nil {
		panic(err) // numbers and text always have a JSON form
	}
	return line
}

// reset forgets everything; `?latency_ms=150` delays every PUT from now on.
func (s *server) reset(query string) {
	s.resetsMutex.Lock()
	defer s.resetsMutex.Unlock()
	values, _ := url.ParseQuery(query)
	latency, _ := strconv.Atoi(values.Get("latency_ms"))
	s.latency.Store(int64(latency) * int64(time.Millisecond))
	s.openMax.Store(s.open.Load())
	s.tally.Store(newTally())
}
