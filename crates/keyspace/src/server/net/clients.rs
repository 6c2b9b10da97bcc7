//! All clients, by the place that their events name.

use super::client::Client;
use crate::server::db::UnixMs;

/// The clients, but for one that is taken out while it is served.
#[derive(Debug)]
pub(crate) struct Clients {
    places: Vec<Option<Box<Client>>>,
    free: Vec<usize>,
    len: usize,
    next_id: u64,
    /// When nobody was found to be cut off, though all took too much, and what that was.
    pub(super) looked_in_vain: (UnixMs, u64),
    /// Places of those that are to be written to before the loop waits.
    pub(crate) to_write: Vec<usize>,
}

impl Clients {
    /// None.
    pub(crate) fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            len: 0,
            next_id: 1,
            looked_in_vain: (0, 0),
            to_write: Vec::new(),
        }
    }

    /// How many are connected.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A number for a new client.
    pub(crate) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Gives a client a place.
    pub(crate) fn add(&mut self, mut client: Box<Client>) -> usize {
        self.len += 1;
        match self.free.pop() {
            Some(place) => {
                client.place = place;
                self.places[place] = Some(client);
                place
            }
            None => {
                client.place = self.places.len();
                self.places.push(Some(client));
                self.places.len() - 1
            }
        }
    }

    /// Takes the client at a place out, to be served; [`put`](Self::put) it back, or
    /// [`remove`](Self::remove) its place.
    pub(crate) fn take(&mut self, place: usize) -> Option<Box<Client>> {
        self.places.get_mut(place)?.take()
    }

    /// Puts a client that was taken out back.
    pub(crate) fn put(&mut self, place: usize, client: Box<Client>) {
        self.places[place] = Some(client);
    }

    /// Gives a place free.
    pub(crate) fn remove(&mut self, place: usize) {
        self.places[place] = None;
        self.free.push(place);
        self.len -= 1;
    }

    /// The client at a place.
    pub(crate) fn at(&mut self, place: usize) -> Option<&mut Client> {
        self.places.get_mut(place)?.as_deref_mut()
    }

    /// All of them with their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Client)> {
        self.places.iter().enumerate().filter_map(|(place, it)| Some((place, it.as_deref()?)))
    }

    /// All of them with their places, to be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Client)> {
        let places = self.places.iter_mut().enumerate();
        places.filter_map(|(place, it)| Some((place, it.as_deref_mut()?)))
    }

    /// Has a client written to before the loop waits: after its reply buffer was added to from
    /// elsewhere.
    pub(crate) fn queue(&mut self, place: usize) {
        if let Some(client) = self.at(place)
            && !client.queued
        {
            client.queued = true;
            self.to_write.push(place);
        }
    }
}
