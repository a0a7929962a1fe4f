package main

import (
	"context"
	"log"
)

// Job is one payload to be stored.
type Job struct{ Payload Payload }

// Store is where a worker puts a payload.
type Store interface {
	Put(ctx context.Context, payload Payload) error
}

// Worker stores one payload at a time, whichever the dispatcher hands it.
type Worker struct {
	pool  chan<- chan Job
	jobs  chan Job
	store Store
}

// run announces the worker as idle and does the job that it is given, for ever.
func (w Worker) run() {
	for {
		w.pool <- w.jobs
		job := <-w.jobs
		if err := w.store.Put(context.Background(), job.Payload); err != nil {
			log.Printf("a payload is lost: %v", err)
		}
	}
}

// Dispatcher hands the queue's jobs to idle workers.
type Dispatcher struct {
	maxWorkers int
	queue      <-chan Job
	pool       chan chan Job
	store      Store
}

// NewDispatcher returns a dispatcher for the queue; Run starts it.
func NewDispatcher(maxWorkers int, queue <-chan Job, store Store) *Dispatcher {
	return &Dispatcher{maxWorkers, queue, make(chan chan Job, maxWorkers), store}
}

// Run starts the workers and the dispatching; it does not wait.
func (d *Dispatcher) Run() {
	for range d.maxWorkers {
		go Worker{d.pool, make(chan Job), d.store}.run()
	}
	go d.dispatch()
}

// dispatch starts a goroutine for each job, which waits for an idle worker, as in the original: the jobs that wait are
// therefore bounded by nothing but the clients' patience, whatever the size of the queue.
func (d *Dispatcher) dispatch() {
	for job := range d.queue {
		go func() {
			idle := <-d.pool
			idle <- job
		}()
	}
}
