//! Families of models: configurations, weights, costs, encoders, schedulers.

mod adapters;
mod config_errors;
mod config_ranges;
mod costs;
mod file_lists;
mod files;
mod foreign_folders;
mod in_f16;
mod klein;
mod language_models;
mod published_configs;
mod schedulers;
mod sd3;
