//! A growing array whose copies are cheap: pages are shared until somebody writes to one.
//!
//! Cloning costs one reference count per page, so a view of a large state is taken in well under a
//! millisecond. The first write to a page that a view still holds copies that page alone.

use triomphe::Arc;

/// Items per page. A write under a view copies a page; a view counts pages. For the items in use
/// here (24 to 100 bytes) this keeps the copy near a microsecond.
const PAGE: usize = 128;

/// An array of values by index. Those never written have their default.
#[derive(Clone, Debug)]
pub(crate) struct Pages<T> {
    pages: Vec<Arc<[T; PAGE]>>,
}

/// Which indexes of a [`Pages`] are in use. A view needs none of this.
#[derive(Clone, Debug, Default)]
pub(crate) struct Indexes {
    /// Given back; the last one is handed out first.
    free: Vec<u32>,
    end: u32,
}

impl<T: Clone + Default> Pages<T> {
    pub(crate) fn new() -> Self {
        Self { pages: Vec::new() }
    }

    /// The value at `index`, which must have been set once.
    pub(crate) fn get(&self, index: u32) -> &T {
        let (page, item) = split(index);
        &self.pages[page][item]
    }

    /// As [`Self::get`], for writing.
    pub(crate) fn get_mut(&mut self, index: u32) -> &mut T {
        let (page, item) = split(index);
        &mut Arc::make_mut(&mut self.pages[page])[item]
    }

    pub(crate) fn set(&mut self, index: u32, value: T) {
        let (page, _) = split(index);
        while self.pages.len() <= page {
            self.pages
                .push(Arc::new(std::array::from_fn(|_| T::default())));
        }
        *self.get_mut(index) = value;
    }

    /// All values by index, unused ones included.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter())
    }
}

impl Indexes {
    pub(crate) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            let index = self.end;
            self.end += 1;
            index
        })
    }

    pub(crate) fn give_back(&mut self, index: u32) {
        self.free.push(index);
    }
}

fn split(index: u32) -> (usize, usize) {
    let index = index as usize;
    (index / PAGE, index % PAGE)
}
